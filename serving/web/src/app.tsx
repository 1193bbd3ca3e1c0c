/** The frame: header with tabs, and the view that the address names. */
import { useEffect } from "react";

import { KeyKept, KeyPanel } from "./access/KeyPanel";
import { CaptionView } from "./caption/CaptionView";
import { HistoryView } from "./history/HistoryView";
import { TrendsView } from "./trends/TrendsView";
import { Logo } from "./ui/logo";
import { HREF, useRoute, type View } from "./ui/route";
import { ToastArea } from "./ui/toast";

const TITLES: Record<View, string> = { caption: "Caption", history: "History", trends: "Trends" };
const VIEWS: View[] = ["caption", "history", "trends"];

export function App() {
  const { view } = useRoute();
  useEffect(() => {
    document.title = view === "caption" ? "TrendRAG" : `${TITLES[view]} · TrendRAG`;
  }, [view]);
  return (
    <ToastArea>
      <header className="masthead">
        <a className="brand" href={HREF.caption}>
          <Logo />
          <span className="brand-name">TrendRAG</span>
        </a>
        <KeyKept />
        <nav aria-label="Views">
          {VIEWS.map((name) => (
            <a key={name} href={HREF[name]} aria-current={name === view ? "page" : undefined}>
              {TITLES[name]}
            </a>
          ))}
        </nav>
      </header>
      <KeyPanel />
      {/* Stays while another view is shown: a stream that runs goes on. */}
      <main hidden={view !== "caption"}>
        <CaptionView />
      </main>
      {view !== "caption" && <main>{view === "history" ? <HistoryView /> : <TrendsView />}</main>}
    </ToastArea>
  );
}
