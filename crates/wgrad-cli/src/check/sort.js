// A click on a header sorts the table by that column; another click reverses the order. Numbers start with the
// largest, text with the first of the alphabet. A cell's `data-value` is its number; cells without one stay last.
document.querySelectorAll('table.sortable').forEach(table => {
  const headers = [...table.tHead.rows[0].cells];
  const compare = (a, b, sign) => {
    if (a === '' || b === '') return (a === '') - (b === '');
    return sign * (typeof a === 'number' ? a - b || 0 : a.localeCompare(b));
  };
  headers.forEach((header, column) => {
    const numeric = header.classList.contains('n');
    const value = row => {
      const cell = row.cells[column];
      if (!numeric) return cell.textContent;
      return cell.dataset.value === undefined ? '' : Number(cell.dataset.value);
    };
    const sort = () => {
      const first = numeric ? 'descending' : 'ascending';
      const next = header.ariaSort === first ? (numeric ? 'ascending' : 'descending') : first;
      headers.forEach(other => other.removeAttribute('aria-sort'));
      header.setAttribute('aria-sort', next);
      const sign = next === 'ascending' ? 1 : -1;
      const rows = [...table.tBodies[0].rows].map(row => ({ row, value: value(row) }));
      rows.sort((a, b) => compare(a.value, b.value, sign));
      table.tBodies[0].append(...rows.map(({ row }) => row));
    };
    const button = document.createElement('button');
    button.append(...header.childNodes);
    button.onclick = sort;
    header.append(button);
  });
});
