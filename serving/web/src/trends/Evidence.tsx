/** Where a trend was seen. Titles and addresses are somebody else's: text is text, and only web addresses are links. */
import type { Schemas } from "../api/client";
import { Icon } from "../ui/icon";
import { webLink } from "../ui/link";
import { When } from "../ui/when";

export function Evidence({ items }: { items: Schemas["Evidence"][] }) {
  if (!items.length) return <p className="muted small">Nothing was kept of where it was seen.</p>;
  return (
    <ul className="evidence">
      {items.map((item, number) => (
        <li key={number}>
          <Title item={item} />
          <p className="muted small">
            <bdi>{item.source}</bdi>
            {item.published_at && (
              <>
                {" · "}
                <When at={item.published_at} />
              </>
            )}
            {item.volume != null && ` · ${item.volume.toLocaleString("en")} in its own count`}
          </p>
        </li>
      ))}
    </ul>
  );
}

function Title({ item }: { item: Schemas["Evidence"] }) {
  const address = webLink(item.url);
  const title = <bdi>{item.title || item.source}</bdi>;
  if (!address) return <p>{title}</p>;
  return (
    <a href={address} target="_blank" rel="noopener noreferrer nofollow">
      {title}
      <Icon name="external" />
      <span className="visually-hidden"> (opens in a new tab)</span>
    </a>
  );
}
