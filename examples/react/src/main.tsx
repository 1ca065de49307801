import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { StoaProvider } from "@stoa/client/react";
import { App } from "./app.js";

createRoot(document.getElementById("root")!).render(
  <StrictMode>
    <StoaProvider url={location.origin}>
      <App />
    </StoaProvider>
  </StrictMode>,
);
