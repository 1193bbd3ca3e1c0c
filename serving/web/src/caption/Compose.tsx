/** The form: the photo, what it is about, and how its captions should be. */
import { useEffect, useEffectEvent, useRef, useState, type DragEvent } from "react";

import { LIMITS } from "../api/limits";
import { Button, Field } from "../ui/controls";
import { Icon } from "../ui/icon";
import { Notice } from "../ui/notice";
import { ACCEPTED, preparePhoto, type Photo } from "./photo";
import { countries, LANGUAGES, TONES } from "./choices";
import { usePlatforms } from "./platforms";
import type { Platform, Settings } from "./settings";

const COUNTS = Array.from({ length: LIMITS.candidates }, (_, index) => index + 1);

interface ComposeProps {
  settings: Settings;
  photo: Photo | null;
  busy: boolean;
  onSettings: (settings: Settings) => void;
  onPhoto: (photo: Photo) => void;
  onWrite: () => void;
  onStop: () => void;
}

export function Compose({ settings, photo, busy, onSettings, onPhoto, onWrite, onStop }: ComposeProps) {
  const [refused, setRefused] = useState<string | null>(null);
  const platforms = usePlatforms();
  const rules = platforms.find(({ id }) => id === settings.platform);
  const set = (change: Partial<Settings>) => onSettings({ ...settings, ...change });
  const noteLeft = LIMITS.noteChars - Array.from(settings.note).length;

  async function take(file: File | null | undefined) {
    if (!file) return;
    setRefused(null);
    try {
      onPhoto(await preparePhoto(file, file.name || "photo"));
    } catch (error) {
      setRefused(error instanceof Error ? error.message : "This file can't be used.");
    }
  }
  usePaste((file) => void take(file));

  return (
    <form
      className="compose"
      aria-label="New captions"
      onSubmit={(event) => {
        event.preventDefault();
        if (photo) onWrite();
        else setRefused("Choose a photo first.");
      }}
    >
      <PhotoField photo={photo} onFile={(file) => void take(file)} />
      {refused && <Notice kind="error">{refused}</Notice>}
      <Field label="Note" hint={noteLeft < 200 ? `${noteLeft} characters left` : undefined}>
        {(ids) => (
          <textarea
            {...ids}
            className="input"
            rows={2}
            dir="auto"
            maxLength={LIMITS.noteChars}
            placeholder="What is it about? (optional)"
            value={settings.note}
            onChange={(event) => set({ note: event.target.value })}
          />
        )}
      </Field>
      <Field label="For" hint={rules && `up to ${rules.usual_chars.toLocaleString("en")} characters`}>
        {(ids) => (
          <select
            {...ids}
            className="input"
            value={settings.platform}
            onChange={(event) => set({ platform: event.target.value as Platform })}
          >
            {platforms.map(({ id, name }) => (
              <option key={id} value={id}>
                {id === "generic" ? "Anywhere" : name}
              </option>
            ))}
          </select>
        )}
      </Field>
      <fieldset className="field count">
        <legend className="field-name">Captions</legend>
        <div className="segments">
          {COUNTS.map((count) => (
            <label key={count}>
              <input
                type="radio"
                name="candidates"
                className="visually-hidden"
                checked={settings.candidates === count}
                onChange={() => set({ candidates: count })}
              />
              <span>{count}</span>
            </label>
          ))}
        </div>
      </fieldset>
      <details className="options">
        <summary>Tone, language, trends</summary>
        <div className="options-body">
          <div className="pair">
            <Field label="Tone">
              {(ids) => (
                <>
                  <input
                    {...ids}
                    className="input"
                    list="tones"
                    maxLength={LIMITS.toneChars}
                    placeholder="any"
                    value={settings.tone}
                    onChange={(event) => set({ tone: event.target.value })}
                  />
                  <datalist id="tones">
                    {TONES.map((tone) => (
                      <option key={tone} value={tone} />
                    ))}
                  </datalist>
                </>
              )}
            </Field>
            <Field label="Language">
              {(ids) => (
                <select
                  {...ids}
                  className="input"
                  value={settings.language}
                  onChange={(event) => set({ language: event.target.value })}
                >
                  {LANGUAGES.map(([tag, name]) => (
                    <option key={tag} value={tag}>
                      {name}
                    </option>
                  ))}
                </select>
              )}
            </Field>
          </div>
          <div className="checks">
            <Check label="Hashtags" checked={settings.hashtags} onChange={(hashtags) => set({ hashtags })} />
            <Check label="Emoji" checked={settings.emoji} onChange={(emoji) => set({ emoji })} />
            <Check label="Trends" checked={settings.trends} onChange={(trends) => set({ trends })} />
          </div>
          {settings.trends && (
            <Field label="Trends from">
              {(ids) => (
                <select
                  {...ids}
                  className="input"
                  value={settings.region}
                  onChange={(event) => set({ region: event.target.value })}
                >
                  <option value="">Everywhere</option>
                  {countries().map(([code, name]) => (
                    <option key={code} value={code}>
                      {name}
                    </option>
                  ))}
                </select>
              )}
            </Field>
          )}
        </div>
      </details>
      {settings.excluded.length > 0 && (
        <ul className="excluded" aria-label="Trends left out">
          {settings.excluded.map((trend) => (
            <li key={trend.id}>
              <button
                type="button"
                className="chip"
                aria-label={`Use ${trend.phrase} again`}
                title="Use it again"
                onClick={() => set({ excluded: settings.excluded.filter(({ id }) => id !== trend.id) })}
              >
                <bdi>
                  <s>{trend.phrase}</s>
                </bdi>
                <Icon name="close" />
              </button>
            </li>
          ))}
        </ul>
      )}
      <div className="go">
        {busy ? (
          // Keys, or the click that stops would end on a button that has become one that submits.
          <Button key="stop" kind="primary" icon="stop" onClick={onStop}>
            Stop
          </Button>
        ) : (
          <Button key="write" kind="primary" icon="spark" type="submit">
            {settings.candidates === 1 ? "Write a caption" : "Write captions"}
          </Button>
        )}
      </div>
    </form>
  );
}

function PhotoField({ photo, onFile }: { photo: Photo | null; onFile: (file: File | undefined) => void }) {
  const [over, setOver] = useState(false);
  const input = useRef<HTMLInputElement>(null);
  const drag = (inside: boolean) => (event: DragEvent) => {
    event.preventDefault();
    setOver(inside);
  };
  return (
    // Dropping is for mice; the file field inside does the same for everybody.
    // eslint-disable-next-line jsx-a11y/no-static-element-interactions
    <div
      className="photo"
      data-over={over || undefined}
      data-chosen={photo ? true : undefined}
      onDragOver={drag(true)}
      onDragLeave={drag(false)}
      onDrop={(event) => {
        drag(false)(event);
        onFile(event.dataTransfer.files[0]);
      }}
    >
      {photo && <img className="preview" src={photo.url} alt={`Your photo, ${photo.name}`} />}
      <label className={photo ? "photo-change" : "photo-empty"}>
        <input
          ref={input}
          type="file"
          className="visually-hidden"
          accept={ACCEPTED}
          aria-label={photo ? "Choose another photo" : "Choose a photo"}
          onChange={(event) => {
            onFile(event.target.files?.[0]);
            event.target.value = ""; // so that the same file can be chosen again
          }}
        />
        <Icon name={photo ? "image" : "camera"} />
        {photo ? (
          <span>Another photo</span>
        ) : (
          <>
            <strong>Choose a photo</strong>
            <span className="muted small">or drop or paste one here</span>
          </>
        )}
      </label>
    </div>
  );
}

function Check({ label, checked, onChange }: { label: string; checked: boolean; onChange: (on: boolean) => void }) {
  return (
    <label className="check">
      <input type="checkbox" checked={checked} onChange={(event) => onChange(event.target.checked)} />
      {label}
    </label>
  );
}

/** Photos pasted anywhere on the page, but for text fields' own pastes of text. */
function usePaste(onFile: (file: File) => void) {
  const pasted = useEffectEvent((event: ClipboardEvent) => {
    const file = [...(event.clipboardData?.files ?? [])].find(({ type }) => type.startsWith("image/"));
    if (!file) return;
    event.preventDefault();
    onFile(file);
  });
  useEffect(() => {
    const listen = (event: ClipboardEvent) => pasted(event);
    document.addEventListener("paste", listen);
    return () => document.removeEventListener("paste", listen);
  }, []);
}
