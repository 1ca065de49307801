import { runTests } from "../../run-tests.mjs";

runTests(import.meta.dirname, 120_000);
