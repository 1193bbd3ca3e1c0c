/** One answer again as it was given: marked words, and where each of its trends came from. */
import { useEffect, useState } from "react";

import { get, known, type ApiError, type Schemas } from "../api/client";
import { CaptionText } from "../caption/text";
import { Evidence } from "../trends/Evidence";
import { IconButton } from "../ui/controls";
import { Sheet } from "../ui/dialog";
import { Notice } from "../ui/notice";
import { dayAndTime } from "../ui/time";
import { Thumbnail } from "./Thumbnail";

interface OpenedProps {
  id: string;
  onCopy: (text: string) => void;
  onClose: () => void;
}

export function Opened({ id, onCopy, onClose }: OpenedProps) {
  const [full, setFull] = useState<Schemas["Full"] | null>(null);
  const [error, setError] = useState<ApiError | null>(null);
  useEffect(() => {
    const asking = new AbortController();
    get("/api/v1/history/{caption}", { path: { caption: id }, signal: asking.signal }).then(
      (answer) => setFull(answer.caption),
      (failure: unknown) => {
        if (!asking.signal.aborted) setError(known(failure));
      },
    );
    return () => asking.abort();
  }, [id]);
  return (
    <Sheet title={full ? dayAndTime(full.created_at) : "From your history"} onClose={onClose}>
      {error && <Notice kind="error">{error.message}</Notice>}
      {full?.thumbnail && <Thumbnail className="opened-photo" id={id} note={full.note} />}
      {full?.note && (
        <p className="muted small">
          Note: <bdi>{full.note}</bdi>
        </p>
      )}
      {full && (full.answer ? <Answer answer={full.answer} onCopy={onCopy} /> : <Texts full={full} onCopy={onCopy} />)}
    </Sheet>
  );
}

function Answer({ answer, onCopy }: { answer: Schemas["CaptionsAnswer"]; onCopy: (text: string) => void }) {
  const trends = new Map(answer.captions.flatMap((caption) => caption.trends).map((trend) => [trend.id, trend]));
  return (
    <>
      <ol className="kept">
        {answer.captions.map((caption) => (
          <li key={caption.candidate}>
            <p className="kept-text">
              <CaptionText text={caption.text} marks={caption.highlights} />
            </p>
            <IconButton icon="copy" label={`Copy caption ${caption.candidate + 1}`} onClick={() => onCopy(caption.text)} />
          </li>
        ))}
      </ol>
      {answer.draft && (
        <p className="muted small">
          Draft: the small built-in engine wrote these, not a vision model.
        </p>
      )}
      {[...trends.values()].map((trend) => (
        <section key={trend.id} className="opened-trend">
          <h3>
            <mark>
              <bdi>{trend.phrase}</bdi>
            </mark>
          </h3>
          <Evidence items={trend.evidence} />
        </section>
      ))}
      {!trends.size && <p className="muted small">No trend is in these captions.</p>}
      {answer.snapshot && <p className="muted small">Made with {answer.snapshot.label}.</p>}
    </>
  );
}

/** Where another version gave the answer, in a shape that can't be read any more, its texts are still there. */
function Texts({ full, onCopy }: { full: Schemas["Full"]; onCopy: (text: string) => void }) {
  return (
    <ol className="kept">
      {full.captions.map((caption, number) => (
        <li key={number}>
          <p className="kept-text">
            <bdi>{caption.text}</bdi>
          </p>
          <IconButton icon="copy" label={`Copy caption ${number + 1}`} onClick={() => onCopy(caption.text)} />
        </li>
      ))}
    </ol>
  );
}
