import { useLayoutEffect, useState, type RefObject } from "react";

const FIRST_WIDTH = 360;

/** The width of an element in CSS pixels, as it changes. */
export function useWidth(element: RefObject<Element | null>): number {
  const [width, setWidth] = useState(FIRST_WIDTH);
  useLayoutEffect(() => {
    const watched = element.current;
    if (watched === null) return undefined;
    const observer = new ResizeObserver(([entry]) => {
      if (entry !== undefined) setWidth(Math.round(entry.contentRect.width));
    });
    observer.observe(watched);
    return () => {
      observer.disconnect();
    };
  }, [element]);
  return width;
}
