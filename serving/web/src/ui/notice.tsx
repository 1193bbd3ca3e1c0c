/** A box that tells of an error, a limitation or good news, and what to do. */
import type { ReactNode } from "react";

import { Icon, type IconName } from "./icon";

const ICONS: Record<NoticeKind, IconName> = { error: "warning", warning: "warning", good: "check", info: "spark" };

export type NoticeKind = "error" | "warning" | "good" | "info";

interface NoticeProps {
  kind: NoticeKind;
  children: ReactNode;
  /** Buttons beside the words. */
  actions?: ReactNode;
}

/** Errors interrupt a screen reader; everything else is there to be found. */
export function Notice({ kind, children, actions }: NoticeProps) {
  return (
    <div className={`notice notice-${kind}`} role={kind === "error" ? "alert" : undefined}>
      <Icon name={ICONS[kind]} />
      <div className="notice-text">{children}</div>
      {actions && <div className="notice-actions">{actions}</div>}
    </div>
  );
}
