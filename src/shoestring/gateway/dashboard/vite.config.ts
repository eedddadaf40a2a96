import { defineConfig } from "vitest/config";
import { sourcesDigest } from "./sourcesDigest.ts";

// Names without hashes: the built page is committed, and one change gives one small diff.
// The gateway serves it with an ETag, so a browser never keeps an old one.
export default defineConfig(({ command }) => ({
  base: command === "build" ? "./" : "/dashboard/",
  plugins: [sourcesDigest()],
  build: {
    outDir: "../static",
    emptyOutDir: true,
    target: "es2022",
    cssTarget: ["chrome123", "firefox120", "safari17.5"], // light-dark() is kept as it is
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
    cssCodeSplit: false,
    rolldownOptions: {
      output: {
        entryFileNames: "app.js",
        chunkFileNames: "[name].js",
        assetFileNames: "app[extname]",
      },
    },
  },
  server: { proxy: { "/dashboard/api": process.env.GATEWAY_URL ?? "http://127.0.0.1:8000" } },
  test: { environment: "node", include: ["tests/**/*.test.{ts,tsx}"] },
}));
