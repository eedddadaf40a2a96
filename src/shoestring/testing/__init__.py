"""Parts that tests share, shipped with the package so that other projects can use them."""
