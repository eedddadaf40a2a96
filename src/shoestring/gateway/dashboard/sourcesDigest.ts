import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Plugin } from "vite";

const FILES = [
  "index.html",
  "package-lock.json",
  "sourcesDigest.ts",
  "tsconfig.json",
  "vite.config.ts",
];
const FOLDERS = ["public", "src"];

/**
 * Writes `sources.sha256` beside what is built, in the form of sha256sum.
 *
 * So a test sees without npm that somebody changed the sources and did not build.
 */
export function sourcesDigest(): Plugin {
  const root = import.meta.dirname;
  const inside = (folder: string) =>
    readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name).slice(root.length + 1));
  return {
    name: "sources-digest",
    apply: "build",
    generateBundle() {
      const lines = [...FILES, ...FOLDERS.flatMap(inside)].sort().map(
        (path) =>
          `${createHash("sha256")
            .update(readFileSync(join(root, path)))
            .digest("hex")}  ${path}\n`,
      );
      this.emitFile({ type: "asset", fileName: "sources.sha256", source: lines.join("") });
    },
  };
}
