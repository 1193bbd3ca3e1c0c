export function Logo() {
  return (
    <svg className="logo" viewBox="0 0 24 24" aria-hidden="true" focusable="false">
      <rect x="1" y="1" width="22" height="22" rx="6" />
      <path d="M5 16.5 9.5 11l3.5 3.2L19 7.5" />
    </svg>
  );
}
