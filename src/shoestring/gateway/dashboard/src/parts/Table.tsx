import type { ReactNode } from "react";

export interface Column<Row> {
  readonly title: string;
  readonly cell: (row: Row) => ReactNode;
  readonly numeric?: boolean;
}

interface Props<Row> {
  readonly label: string;
  readonly columns: readonly Column<Row>[];
  readonly rows: readonly Row[];
  readonly idOf: (row: Row) => string;
  readonly empty: string;
}

/** A table; on a narrow screen each row is a card whose lines carry their column's title. */
export function Table<Row>({ label, columns, rows, idOf, empty }: Props<Row>) {
  if (rows.length === 0) return <p className="empty">{empty}</p>;
  return (
    <div className="table-box" role="region" aria-label={label} tabIndex={0}>
      {/* The roles are said since a table laid out as cards loses its own. */}
      <table role="table" aria-label={label}>
        <thead role="rowgroup">
          <tr role="row">
            {columns.map(({ title, numeric }) => (
              <th
                key={title}
                role="columnheader"
                scope="col"
                className={numeric ? "number" : undefined}
              >
                {title}
              </th>
            ))}
          </tr>
        </thead>
        <tbody role="rowgroup">
          {rows.map((row) => (
            <tr key={idOf(row)} role="row">
              {columns.map(({ title, cell, numeric }) => (
                <td
                  key={title}
                  role="cell"
                  data-title={title}
                  className={numeric ? "number" : undefined}
                >
                  <div>{cell(row)}</div>
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
