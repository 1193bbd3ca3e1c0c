/** One caption: as it is written, then with everything that can be done with it. */
import { useState } from "react";

import { ApiError } from "../api/client";
import { Button, IconButton } from "../ui/controls";
import { useCopy } from "../ui/copying";
import { Icon } from "../ui/icon";
import { useToast } from "../ui/toast";
import type { Board, Card, Version } from "./board";
import { useCell } from "../cell";
import { withHashtags } from "./copying";
import { Editor } from "./Editor";
import { favour, judge } from "./keeping";
import { Refine } from "./Refine";
import { CaptionText } from "./text";

interface CaptionCardProps {
  board: Board;
  card: Card;
  /** Longest caption on the platform, where it is known. */
  limit: number | null;
  /** Whether the run is still being written. */
  busy: boolean;
  /** Whether the whole run failed, which a notice above the cards tells with its reason. */
  failed: boolean;
  onWhy: (trendId: string) => void;
}

export function CaptionCard({ board, card, limit, busy, failed, onWhy }: CaptionCardProps) {
  const { versions, at, trouble } = useCell(card.cell);
  const [editing, setEditing] = useState(false);
  const say = useToast();
  const copy = useCopy();
  const version = versions[at];
  if (!version) return null;
  const writing = version.state === "waiting" || version.state === "writing";
  const done = version.state === "done";
  const text = version.edited ?? version.text;
  const name = `Caption ${card.number + 1}`;

  async function keep(change: Partial<Pick<Version, "favourite" | "verdict" | "edited">>) {
    if (!version) return;
    const before = { favourite: version.favourite, verdict: version.verdict, edited: version.edited };
    board.opinion(card, change);
    if (version.id === null) return; // nothing is kept here: it holds as long as the page
    try {
      if (change.favourite !== undefined) await favour(version.id, version.number, change.favourite);
      else await judge(version.id, version.number, { verdict: version.verdict, edited: version.edited, ...change });
    } catch (error) {
      board.opinion(card, before);
      say(error instanceof ApiError ? error.message : "That could not be saved.");
    }
  }

  const offered = [...new Set(version.marks.map((mark) => mark.trend_id))].flatMap((id) => board.trends.get(id) ?? []);

  return (
    <article className="card" aria-label={name} aria-busy={writing} data-state={version.state}>
      <header className="card-head">
        <h2 className="card-name">{name}</h2>
        {versions.length > 1 && <Versions card={card} board={board} count={versions.length} at={at} />}
        <IconButton
          icon="heart"
          label="Favourite"
          className="to-end"
          pressed={version.favourite}
          disabled={!done}
          onClick={() => void keep({ favourite: !version.favourite })}
        />
      </header>

      {version.asked && (
        <p className="asked">
          <span className="visually-hidden">You asked: </span>
          <bdi>{version.asked}</bdi>
        </p>
      )}
      {editing ? (
        <Editor
          text={text}
          limit={limit}
          onCancel={() => setEditing(false)}
          onSave={(edited) => {
            setEditing(false);
            void keep({ edited: edited === version.text ? null : edited });
          }}
        />
      ) : (
        <div className="card-text" data-writing={writing || undefined} data-fixed={writing || busy || undefined}>
          {version.state === "waiting" ? (
            <span className="skeleton" aria-hidden="true" />
          ) : (
            <CaptionText text={text} marks={version.edited === null ? version.marks : []} onWhy={onWhy} />
          )}
        </div>
      )}
      {(trouble ?? version.state === "failed") && (
        <p className="card-error" role={trouble || !failed ? "alert" : undefined}>
          <Icon name="warning" />
          {trouble ?? ((!failed && version.error) || "This caption was not finished.")}
        </p>
      )}
      <div className="remarks small muted">
        <Remarks version={version} limit={limit} text={text} />
        {offered.length > 0 && done && (
          <Button kind="link" onClick={() => copy(withHashtags(text, offered))}>
            Copy with hashtags
          </Button>
        )}
      </div>

      <div className="card-actions" role="group" aria-label={`${name}: actions`}>
        <Button icon="copy" disabled={!text || writing} onClick={() => copy(text)}>
          Copy
        </Button>
        <span className="to-end icon-row">
          <IconButton
            icon="thumbUp"
            label="Good"
            pressed={version.verdict === "like"}
            disabled={!done}
            onClick={() => void keep({ verdict: version.verdict === "like" ? null : "like" })}
          />
          <IconButton
            icon="thumbDown"
            label="Not good"
            pressed={version.verdict === "dislike"}
            disabled={!done}
            onClick={() => void keep({ verdict: version.verdict === "dislike" ? null : "dislike" })}
          />
          <IconButton icon="edit" label="Edit" disabled={!done || editing} onClick={() => setEditing(true)} />
          <IconButton
            icon="refresh"
            label="Write another"
            disabled={busy || writing}
            onClick={() => void board.regenerate(card)}
          />
        </span>
      </div>
      <Refine lit={version.marks.length > 0} disabled={busy || !done} onAsk={(change) => void board.refine(card, change)} />
    </article>
  );
}

/** Steps through a card's versions. */
function Versions({ card, board, count, at }: { card: Card; board: Board; count: number; at: number }) {
  return (
    <span className="versions">
      <Button kind="link" aria-label="Earlier version" disabled={at === 0} onClick={() => board.show(card, at - 1)}>
        ‹
      </Button>
      <span className="small muted">
        {at + 1} of {count}
      </span>
      <Button kind="link" aria-label="Later version" disabled={at === count - 1} onClick={() => board.show(card, at + 1)}>
        ›
      </Button>
    </span>
  );
}

function Remarks({ version, text, limit }: { version: Version; text: string; limit: number | null }) {
  const length = Array.from(text).length;
  if (!length) return <p />;
  const remarks = [
    version.edited !== null && "edited by you",
    version.cut && "shortened to fit",
    version.missing.length > 0 && `without: ${version.missing.join(", ")}`,
    version.unwanted.length > 0 && `still says: ${version.unwanted.join(", ")}`,
    version.degraded && "draft",
    version.state === "stopped" && "stopped",
    version.state === "done" && version.edited === null && !version.marks.length && "no trend",
  ].filter((remark) => typeof remark === "string");
  return (
    <p>
      <span className={limit !== null && length > limit ? "over" : undefined}>
        {length}
        {limit !== null && limit < 5000 && ` of ${limit.toLocaleString("en")}`} characters
      </span>
      {remarks.map((remark) => (
        <span key={remark}>
          {" · "}
          <bdi>{remark}</bdi>
        </span>
      ))}
    </p>
  );
}
