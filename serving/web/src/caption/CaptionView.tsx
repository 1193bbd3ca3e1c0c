/** Compose on the left, what is written on the right; on a phone one above the other. */
import { useEffect, useEffectEvent, useRef, useState } from "react";

import { useToast } from "../ui/toast";
import { Board } from "./board";
import "./caption.css";
import { useCell } from "../cell";
import { Compose } from "./Compose";
import { forget, preparePhoto, type Photo } from "./photo";
import { Results } from "./Results";
import { loadSettings, saveSettings, without, type Settings } from "./settings";
import type { Trend } from "./stream";
import { forgetUnfinished, keepUnfinished, loadUnfinished, type Unfinished } from "./unfinished";
import { WhySheet } from "./WhySheet";

/** From this width on the results stand beside the form; as in caption.css. */
const WIDE = "(min-width: 56rem)";

export function CaptionView() {
  const [board] = useState(() => new Board());
  const [settings, setSettings] = useState(loadSettings);
  const [photo, setPhoto] = useState<Photo | null>(null);
  const [why, setWhy] = useState<Trend | null>(null);
  const results = useRef<HTMLElement>(null);
  /** The key of the newest request. */
  const latest = useRef("");
  /** A page that is left ends its streams, and these are to be gone on with. */
  const leaving = useRef(false);
  const say = useToast();
  const run = useCell(board.run);
  const busy = run.phase === "looking" || run.phase === "finding" || run.phase === "writing";

  useEffect(() => saveSettings(settings), [settings]);

  function choose(chosen: Photo) {
    if (photo && photo !== run.photo) forget(photo);
    setPhoto(chosen);
  }

  function write(asked: Settings, of = photo) {
    if (!of) return;
    if (run.photo && run.photo !== of) forget(run.photo);
    void start({ key: newKey(), photo: of.blob, name: of.name, settings: asked }, of);
  }

  async function start(request: Unfinished, of: Photo) {
    latest.current = request.key;
    void keepUnfinished(request);
    // On a phone the results are below the form.
    if (!window.matchMedia(WIDE).matches) requestAnimationFrame(() => results.current?.scrollIntoView());
    await board.write(of, request.settings, request.key);
    if (latest.current === request.key && !leaving.current) void forgetUnfinished();
  }

  const resume = useEffectEvent(async () => {
    const request = await loadUnfinished();
    if (!request || latest.current) return;
    const shown = await preparePhoto(request.photo, request.name);
    setPhoto(shown);
    setSettings(request.settings);
    say("Going on where the page was left.");
    await start(request, shown);
  });
  useEffect(() => void resume(), []);
  useEffect(() => {
    const left = () => (leaving.current = true);
    window.addEventListener("pagehide", left);
    return () => window.removeEventListener("pagehide", left);
  }, []);

  function exclude(trend: Trend) {
    setWhy(null);
    const changed = without(settings, trend);
    setSettings(changed);
    say(`“${trend.phrase}” is left out. Writing anew.`);
    write(changed, run.photo);
  }

  return (
    <div className="desk">
      <Compose
        settings={settings}
        photo={photo}
        busy={busy}
        onSettings={setSettings}
        onPhoto={choose}
        onWrite={() => write(settings)}
        onStop={() => board.stop()}
      />
      <section className="results" aria-label="Captions" ref={results}>
        <Results
          board={board}
          platform={settings.platform}
          onWhy={(id) => setWhy(board.trends.get(id) ?? null)}
          onRetry={() => write(settings)}
          onPhoto={choose}
        />
      </section>
      {why && (
        <WhySheet trend={why} snapshot={run.snapshot} onClose={() => setWhy(null)} onExclude={() => exclude(why)} />
      )}
    </div>
  );
}

/** Not `randomUUID`, which browsers only have on https and on localhost. */
function newKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
