import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

// The server that answers the API while the page is worked on with `npm run dev`.
const server = process.env["TRENDRAG_SERVER"] ?? "http://127.0.0.1:8000";

export default defineConfig({
  base: "/",
  plugins: [react()],
  build: {
    outDir: "../http/static/app",
    emptyOutDir: true,
    target: "es2022",
    // The page's CSP allows no data: addresses: every asset is a file.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
  // The sample photo is the one of `trendrag demo`, outside of this folder.
  server: { fs: { allow: ["../.."] }, proxy: { "/api": server, "/readyz": server } },
});
