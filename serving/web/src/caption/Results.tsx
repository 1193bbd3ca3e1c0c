/** What happens and what is written: progress, cards, good and bad news. */
import { useState } from "react";

import sample from "../../../../trendrag/demo/coffee.jpg";

import type { ApiError } from "../api/client";
import { isOld } from "../trends/freshness";
import { Button } from "../ui/controls";
import { Icon } from "../ui/icon";
import { Notice } from "../ui/notice";
import { useReachable } from "../ui/reachable";
import { useToast } from "../ui/toast";
import { When } from "../ui/when";
import { AltText } from "./AltText";
import type { Board, Card, Phase, Run } from "./board";
import { CaptionCard } from "./CaptionCard";
import { useCell } from "../cell";
import { preparePhoto, type Photo } from "./photo";
import { usePlatforms } from "./platforms";
import type { Platform } from "./settings";
import type { Snapshot } from "./stream";

interface ResultsProps {
  board: Board;
  platform: Platform;
  onWhy: (trendId: string) => void;
  onRetry: () => void;
  onPhoto: (photo: Photo) => void;
}

export function Results({ board, platform, onWhy, onRetry, onPhoto }: ResultsProps) {
  const run = useCell(board.run);
  const rules = usePlatforms().find(({ id }) => id === platform);
  if (run.phase === "idle") return <Welcome onPhoto={onPhoto} />;
  return (
    <>
      <Progress run={run} />
      <News run={run} onRetry={onRetry} />
      <ol className="cards">
        {(run.phase === "failed" ? run.cards.filter(begun) : run.cards).map((card) => (
          <li key={card.number}>
            <CaptionCard
              board={board}
              card={card}
              limit={rules?.max_chars ?? null}
              busy={working(run.phase)}
              failed={run.phase === "failed"}
              onWhy={onWhy}
            />
          </li>
        ))}
      </ol>
      {run.phase === "done" && <AltText key={run.done?.snapshot_id} board={board} run={run} />}
      <Spoken board={board} />
    </>
  );
}

/** Where everything failed, the notice says so: only cards that have a text are shown. */
function begun({ cell }: Card): boolean {
  return cell.get().versions.some(({ text }) => text);
}

function working(phase: Phase): boolean {
  return phase === "looking" || phase === "finding" || phase === "writing";
}

const STEPS: [Phase, string][] = [
  ["looking", "Looking at the photo"],
  ["finding", "Finding trends"],
  ["writing", "Writing"],
];

/** A quiet line: which step it is at, then who wrote and with which trends. */
function Progress({ run }: { run: Run }) {
  if (working(run.phase)) {
    const at = STEPS.findIndex(([phase]) => phase === run.phase);
    return (
      <ol className="steps" aria-label="Progress">
        {STEPS.map(([phase, name], index) => (
          <li
            key={phase}
            className="step"
            data-state={index < at ? "past" : index === at ? "now" : "ahead"}
            aria-current={index === at ? "step" : undefined}
          >
            <span className="dot">{index < at && <Icon name="check" />}</span>
            {name}
          </li>
        ))}
      </ol>
    );
  }
  if (run.phase === "failed") return null; // the news say it all
  return (
    <p className="summary">
      {run.done && (
        <span className="chip">{run.done.draft ? "Draft by the small built-in engine" : `Written by ${run.done.model}`}</span>
      )}
      {run.snapshot && (
        <span className={run.snapshot.origin === "sample" ? "chip chip-sample" : "chip"} title={run.snapshot.label}>
          {run.snapshot.origin === "sample" ? "Sample trends" : "Trends"}
          {run.snapshot.recorded_at && (
            <>
              {" of "}
              <When at={run.snapshot.recorded_at} />
            </>
          )}
        </span>
      )}
      {run.done && <span className="chip">{run.done.timings.total.toFixed(1)} s</span>}
      {run.phase === "stopped" && <span className="chip">Stopped. What was written so far is below.</span>}
    </p>
  );
}

function News({ run, onRetry }: { run: Run; onRetry: () => void }) {
  return (
    <>
      {run.error && <Failure error={run.error} onRetry={onRetry} />}
      {run.done?.degraded && (
        <Notice kind="warning">
          The model can’t be reached just now, so a small draft engine wrote this. Try again later for better captions.
        </Notice>
      )}
      {run.snapshot?.warning && <Notice kind="warning">{run.snapshot.warning}</Notice>}
      {run.unjudged && (
        <Notice kind="warning">The model could not look at the trends before they were offered. Check that they fit.</Notice>
      )}
      {run.phase === "done" && run.offered.length === 0 && run.reason && (
        <WithoutTrends reason={run.reason} snapshot={run.snapshot} />
      )}
    </>
  );
}

/** Good news where there were trends and none belongs, and else something for the operator to mend. */
function WithoutTrends({ reason, snapshot }: { reason: string; snapshot: Snapshot | null }) {
  const there = snapshot !== null && snapshot.count > 0 && !isOld(snapshot);
  return (
    <Notice kind={there ? "good" : "warning"}>
      <strong>Written without trends.</strong> {sentence(reason)}
      {there && " A caption is better with none than with one that does not belong."}
    </Notice>
  );
}

const AWAY = new Set(["unreachable", "broken", "shutting_down"]);

/** What went wrong; where the server went away, also when it is back. */
function Failure({ error, onRetry }: { error: ApiError; onRetry: () => void }) {
  const away = AWAY.has(error.code);
  const reachable = useReachable(away);
  const retry = (
    <Button icon="refresh" onClick={onRetry} disabled={away && !reachable}>
      Try again
    </Button>
  );
  return (
    <Notice kind="error" actions={retry}>
      {error.message}
      {error.status === 401 && " Enter one above, then try again: your photo and settings are still here."}
      {away && <strong role="status">{reachable ? " The server is there again." : " Waiting for the server …"}</strong>}
    </Notice>
  );
}

function sentence(text: string): string {
  const trimmed = text.trim();
  return trimmed.charAt(0).toUpperCase() + trimmed.slice(1) + (/[.!?]$/.test(trimmed) ? "" : ".");
}

/** Finished captions are told to screen readers, one at a time; words that come and go are not. */
function Spoken({ board }: { board: Board }) {
  const { phase, error } = useCell(board.run);
  const text = useCell(board.spoken);
  const step = STEPS.find(([name]) => name === phase)?.[1];
  return (
    <>
      <p className="visually-hidden" role="status">
        {step ?? (phase === "done" ? "All captions are written." : phase === "stopped" ? "Stopped." : "")}
      </p>
      <p className="visually-hidden" aria-live="polite">
        {error ? "" : text}
      </p>
    </>
  );
}

function Welcome({ onPhoto }: { onPhoto: (photo: Photo) => void }) {
  const say = useToast();
  const [loading, setLoading] = useState(false);

  async function trySample() {
    setLoading(true);
    try {
      const answer = await fetch(sample);
      if (!answer.ok) throw new Error("no sample");
      onPhoto(await preparePhoto(await answer.blob(), "sample.jpg"));
    } catch {
      say("The sample photo can't be loaded. Choose one of your own.");
    } finally {
      setLoading(false);
    }
  }

  return (
    <div className="welcome">
      <h1>Captions that know what people talk about</h1>
      <p className="muted">
        Choose a photo. The captions write themselves, with a trend where one fits: its words <mark className="lit">light up</mark>, and a
        click says where it comes from.
      </p>
      <button type="button" className="sample" disabled={loading} onClick={() => void trySample()}>
        <Icon name="image" />
        <span>
          <strong>No photo at hand?</strong>
          <span className="muted">Try with ours of an espresso</span>
        </span>
        <Icon name="send" />
      </button>
    </div>
  );
}
