/** Why a word is there: the trend, how strong it is, where and when it was seen, and how to be rid of it. */
import { Evidence } from "../trends/Evidence";
import { StageChip } from "../trends/stage";
import { Button } from "../ui/controls";
import { Notice } from "../ui/notice";
import { Sheet } from "../ui/dialog";
import { When } from "../ui/when";
import { Sightings } from "./Sightings";
import type { Snapshot, Trend } from "./stream";

interface WhySheetProps {
  trend: Trend;
  snapshot: Snapshot | null;
  onClose: () => void;
  /** Leave out where nothing can be written anew. */
  onExclude?: () => void;
}

export function WhySheet({ trend, snapshot, onClose, onExclude }: WhySheetProps) {
  return (
    <Sheet title={<bdi>{trend.phrase}</bdi>} onClose={onClose}>
      <p className="icon-row">
        <StageChip stage={trend.stage} />
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
        <Evidence items={trend.evidence} />
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
