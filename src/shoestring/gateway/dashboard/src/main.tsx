import { createRoot } from "react-dom/client";
import { apiOver } from "./api/client";
import { App } from "./App";
import { keptTheme, showTheme } from "./theme";
import "./styles/all.css";

showTheme(keptTheme());
const root = document.getElementById("root");
if (root === null) throw new Error("index.html has no #root");
createRoot(root).render(<App api={apiOver((input, init) => fetch(input, init))} />);
