import { useState } from "react";
import { keepTheme, keptTheme, next, showTheme } from "../theme";

/** Goes round system, light and dark. */
export function ThemeButton() {
  const [theme, setTheme] = useState(() => keptTheme());
  const change = () => {
    const chosen = next(theme);
    setTheme(chosen);
    keepTheme(chosen);
    showTheme(chosen);
  };
  return (
    <button
      type="button"
      className="quiet"
      onClick={change}
      aria-label={`Theme: ${theme}`}
      title={`Theme: ${theme}`}
    >
      <svg width="16" height="16" viewBox="0 0 16 16" aria-hidden="true">
        <circle cx="8" cy="8" r="6.25" className="outline" />
        {theme === "light" && <circle cx="8" cy="8" r="2.5" className="outline" />}
        {theme === "dark" && <circle cx="8" cy="8" r="6.25" />}
        {theme === "system" && <path d="M8 1.75A6.25 6.25 0 0 1 8 14.25Z" />}
      </svg>
      <span className="wide-only">{theme}</span>
    </button>
  );
}
