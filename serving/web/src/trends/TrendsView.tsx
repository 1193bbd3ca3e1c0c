/** What people talk about now: searched, filtered, with where each was seen and how the sources are. */
import { useEffect, useMemo, useState } from "react";

import { get, type Schemas } from "../api/client";
import { Button, Field } from "../ui/controls";
import { Notice } from "../ui/notice";
import { When } from "../ui/when";
import { isOld } from "./freshness";
import { regionName } from "./regions";
import { Sources } from "./Sources";
import { TrendCard } from "./TrendCard";
import { useTrends, type Found, type Question } from "./useTrends";
import "./trends.css";

const ANY: Question = { q: "", region: "", category: "", stage: "" };
const STAGES = { "": "All", rising: "Rising", peaking: "At their peak", fading: "Fading" };

export function TrendsView() {
  const [question, setQuestion] = useState(ANY);
  const { found, error, loading, more, again } = useTrends(question);
  const choices = useChoices(found?.snapshot.id);
  const change = (part: Partial<Question>) => setQuestion((before) => ({ ...before, ...part }));
  const isFiltered = Object.values(question).some(Boolean);

  return (
    <div className="trends-view">
      <header className="view-head">
        <h1>What people talk about now</h1>
        {found && <Freshness found={found} />}
      </header>
      <form className="filters" role="search" aria-label="Trends" onSubmit={(event) => event.preventDefault()}>
        <Field label="Search">
          {(ids) => (
            <input
              {...ids}
              className="input"
              type="search"
              maxLength={200}
              value={question.q}
              placeholder="coffee, first snow …"
              onChange={(event) => change({ q: event.target.value })}
            />
          )}
        </Field>
        <Choice label="Region" all="Everywhere" names={choices.regions} value={question.region} onChange={(region) => change({ region })} />
        <Choice label="Subject" all="All subjects" names={choices.subjects} value={question.category} onChange={(category) => change({ category })} />
        <Field label="Stage">
          {(ids) => (
            <select {...ids} className="input" value={question.stage} onChange={(event) => change({ stage: event.target.value })}>
              {Object.entries(STAGES).map(([value, name]) => (
                <option key={value} value={value}>
                  {name}
                </option>
              ))}
            </select>
          )}
        </Field>
      </form>
      {error && (
        <Notice kind={error.code === "no_snapshot" ? "warning" : "error"} actions={<Button onClick={again}>Try again</Button>}>
          {error.message}
        </Notice>
      )}
      <p className="small muted" role="status">
        {found && !error && counted(found.passing, isFiltered)}
      </p>
      {found && (
        <>
          <ul className="trend-list" aria-label="Trends" aria-busy={loading}>
            {found.items.map((trend) => (
              <TrendCard key={trend.id} trend={trend} />
            ))}
          </ul>
          {more && (
            <Button className="show-more" disabled={loading} onClick={more}>
              Show more
            </Button>
          )}
          {isFiltered && !found.items.length && <Button onClick={() => setQuestion(ANY)}>Show all trends</Button>}
          <Sources snapshot={found.snapshot.id} />
        </>
      )}
    </div>
  );
}

function counted(count: number, isFiltered: boolean): string {
  if (count === 0) return isFiltered ? "No trend passes these filters." : "There are no trends now.";
  return `${count} ${count === 1 ? "trend" : "trends"}, the strongest first`;
}

/** Of when the trends are, whether they are real, and how many were kept back. */
function Freshness({ found }: { found: Found }) {
  const { snapshot, withheld } = found;
  return (
    <div className="freshness">
      <p className="muted">
        {snapshot.origin === "sample" && <span className="chip chip-sample">Sample trends</span>} Collected{" "}
        <When at={snapshot.created_at} />
        {snapshot.recorded_at && (
          <>
            , last seen <When at={snapshot.recorded_at} />
          </>
        )}
        {withheld != null && withheld > 0 && ` · ${withheld} kept back by the safety rules`}
      </p>
      {isOld(snapshot) && (
        <Notice kind="warning">
          Nothing new was seen for more than three days, and captions leave such old trends out. Whoever runs this server
          collects new ones with “trendrag refresh”.
        </Notice>
      )}
      {snapshot.warning && (
        <Notice kind="warning">
          <bdi>{snapshot.warning}</bdi>
        </Notice>
      )}
    </div>
  );
}

interface ChoiceProps {
  label: string;
  all: string;
  names: [value: string, name: string][];
  value: string;
  onChange: (value: string) => void;
}

function Choice({ label, all, names, value, onChange }: ChoiceProps) {
  return (
    <Field label={label}>
      {(ids) => (
        <select {...ids} className="input" value={value} onChange={(event) => onChange(event.target.value)}>
          <option value="">{all}</option>
          {names.map(([each, name]) => (
            <option key={each} value={each}>
              {name}
            </option>
          ))}
        </select>
      )}
    </Field>
  );
}

interface Choices {
  regions: [string, string][];
  subjects: [string, string][];
}

/** What there is to filter by, among the strongest hundred trends of a snapshot. */
function useChoices(snapshot: string | undefined): Choices {
  const [trends, setTrends] = useState<Schemas["Trend"][]>([]);
  useEffect(() => {
    if (!snapshot) return;
    const asking = new AbortController();
    get("/api/v1/trends", { query: { limit: 100 }, signal: asking.signal }).then(
      (answer) => setTrends(answer.items),
      () => undefined, // filters are a help; the list has told of the failure
    );
    return () => asking.abort();
  }, [snapshot]);
  return useMemo(() => {
    const regions = new Set(trends.flatMap((trend) => trend.region ?? []));
    const subjects = new Set(trends.flatMap((trend) => trend.categories));
    return {
      regions: [...regions].map((code): [string, string] => [code, regionName(code)]).sort(byName),
      subjects: [...subjects].map((name): [string, string] => [name, name]).sort(byName),
    };
  }, [trends]);
}

function byName([, one]: [string, string], [, other]: [string, string]): number {
  return one.localeCompare(other);
}
