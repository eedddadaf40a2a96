/** A bar that is filled by a share; the numbers stand beside it. */
export function Share({ of, full }: { readonly of: number; readonly full: number }) {
  const share = full > 0 ? Math.min(1, of / full) : 0;
  return (
    <svg className="share" width="100%" height="4" aria-hidden="true">
      <rect className="all" width="100%" height="4" rx="2" />
      <rect className="part" width={`${(100 * share).toFixed(1)}%`} height="4" rx="2" />
    </svg>
  );
}
