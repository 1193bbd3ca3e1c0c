import { StrictMode } from "react";
import { createRoot } from "react-dom/client";

// Before the views, whose own styles then win over what is for all.
import "./styles/main.css";
import { App } from "./app";

const root = document.getElementById("root");
if (!root) throw new Error("index.html has no #root");
createRoot(root).render(
  <StrictMode>
    <App />
  </StrictMode>,
);
