/** Why a word is there: the trend, how strong it is, where and when it was seen, and how to be rid of it. */
import { Button } from "../ui/controls";
import { Icon } from "../ui/icon";
import { Notice } from "../ui/notice";
import { Sheet } from "../ui/dialog";
import { When } from "../ui/when";
import { webLink } from "../ui/link";
import { Sightings } from "./Sightings";
import type { Snapshot, Trend } from "./stream";

interface WhySheetProps {
  trend: Trend;
  snapshot: Snapshot | null;
  onClose: () => void;
  /** Leave out where nothing can be written anew. */
  onExclude?: () => void;
}

const STAGES: Record<Trend["stage"], string> = { rising: "Rising", peaking: "At its peak", fading: "Fading" };

export function WhySheet({ trend, snapshot, onClose, onExclude }: WhySheetProps) {
  return (
    <Sheet title={<bdi>{trend.phrase}</bdi>} onClose={onClose}>
      <p className="icon-row">
        <span className={`chip stage-${trend.stage}`}>
          <Icon name="spark" />
          {STAGES[trend.stage]}
        </span>
        <span className="chip">strength {Math.round(trend.score * 100)} %</span>
        {trend.categories.map((category) => (
          <span className="chip" key={category}>
            {category}
          </span>
        ))}
      </p>
      {trend.summary && (
        <p>
          <bdi>{trend.summary}</bdi>
        </p>
      )}
      <Sightings trend={trend} />
      <section>
        <h3>Where it was seen</h3>
        {trend.evidence.length === 0 && <p className="muted">Its sources gave no details.</p>}
        <ul className="evidence">
          {trend.evidence.map((seen, index) => {
            const link = webLink(seen.url);
            return (
              <li key={index}>
                {link ? (
                  <a href={link} target="_blank" rel="noopener noreferrer nofollow">
                    <bdi>{seen.title}</bdi>
                    <Icon name="external" />
                    <span className="visually-hidden"> (opens another page)</span>
                  </a>
                ) : (
                  <bdi>{seen.title}</bdi>
                )}
                <p className="small muted">
                  {seen.source}
                  {seen.published_at && (
                    <>
                      {" · "}
                      <When at={seen.published_at} />
                    </>
                  )}
                  {seen.volume != null && ` · volume ${seen.volume.toLocaleString("en")}`}
                </p>
              </li>
            );
          })}
        </ul>
      </section>
      {snapshot && (
        <Notice kind={snapshot.origin === "sample" || snapshot.warning ? "warning" : "info"}>
          {snapshot.origin === "sample" ? "Sample trends: bundled, not live." : "Live trends."}
          {snapshot.recorded_at && (
            <>
              {" Last seen "}
              <When at={snapshot.recorded_at} />.
            </>
          )}
        </Notice>
      )}
      {onExclude && (
        <Button icon="close" onClick={onExclude}>
          Don’t use this trend
        </Button>
      )}
    </Sheet>
  );
}
