/** Buttons and labelled fields, so that each looks and behaves the same everywhere. */
import { useId, type ComponentPropsWithRef, type ReactNode } from "react";

import { Icon, type IconName } from "./icon";

interface ButtonProps extends ComponentPropsWithRef<"button"> {
  kind?: "primary" | "quiet" | "link" | "danger";
  icon?: IconName;
}

export function Button({ kind = "quiet", icon, children, className = "", ...rest }: ButtonProps) {
  return (
    <button type="button" className={`button button-${kind} ${className}`} {...rest}>
      {icon && <Icon name={icon} />}
      {children}
    </button>
  );
}

interface IconButtonProps extends Omit<ComponentPropsWithRef<"button">, "children"> {
  icon: IconName;
  /** What it does, in words: its name for screen readers and its tooltip. */
  label: string;
  /** Whether it is switched on; leave out where it is no switch. */
  pressed?: boolean;
}

export function IconButton({ icon, label, pressed, className = "", ...rest }: IconButtonProps) {
  return (
    <button
      type="button"
      className={`icon-button ${className}`}
      aria-label={label}
      title={label}
      aria-pressed={pressed}
      {...rest}
    >
      <Icon name={icon} filled={pressed ?? false} />
    </button>
  );
}

interface FieldProps {
  label: string;
  /** What stands under the field. */
  hint?: ReactNode;
  children: (ids: { id: string; "aria-describedby": string | undefined }) => ReactNode;
}

/** A label above whatever `children` makes of the ids that tie the two together. */
export function Field({ label, hint, children }: FieldProps) {
  const id = useId();
  const hintId = `${id}-hint`;
  return (
    <div className="field">
      <label htmlFor={id}>{label}</label>
      {children({ id, "aria-describedby": hint ? hintId : undefined })}
      {hint && (
        <p className="hint" id={hintId}>
          {hint}
        </p>
      )}
    </div>
  );
}
