/** Light or dark: as the system has it, unless the reader chose. */

export const THEMES = ["system", "light", "dark"] as const;
export type Theme = (typeof THEMES)[number];

const KEPT_AS = "shoestring-theme";

export function keptTheme(storage = (): Pick<Storage, "getItem"> => localStorage): Theme {
  const kept = attempt(() => storage().getItem(KEPT_AS));
  return THEMES.find((theme) => theme === kept) ?? "system";
}

export function keepTheme(
  theme: Theme,
  storage = (): Pick<Storage, "setItem" | "removeItem"> => localStorage,
): void {
  attempt(() => {
    if (theme === "system") storage().removeItem(KEPT_AS);
    else storage().setItem(KEPT_AS, theme);
  });
}

export function showTheme(theme: Theme): void {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}

export function next(theme: Theme): Theme {
  return THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length] ?? "system";
}

/** A browser may forbid storage: the choice then holds until the page is left. */
function attempt<T>(action: () => T): T | null {
  try {
    return action();
  } catch (error) {
    if (error instanceof DOMException) return null;
    throw error;
  }
}
