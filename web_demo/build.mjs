// Makes dist/, a folder of static files that any web server can serve: the page, onnxruntime's WebAssembly, the model.

import { spawnSync } from "node:child_process";
import { copyFileSync, cpSync, existsSync, mkdirSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const root = dirname(here);
const dist = join(here, "dist");
const model = join(here, "model", "lightglean.onnx");
const packageStatic = join(root, "glean_ext", "web", "static");
const ownPython = join(root, ".venv", "bin", "python");
const python = process.env.PYTHON ?? (existsSync(ownPython) ? ownPython : "python3");

/** Export the shipped network, which the repository has as safetensors only. */
function exportModel() {
  mkdirSync(dirname(model), { recursive: true });
  const weights = "glean-ext://demo_lightglean_x8.safetensors";
  const done = spawnSync(python, ["-m", "glean_ext", "export", "demo_lightglean_x8", weights, model], {
    cwd: root,
    stdio: "inherit",
  });
  if (done.status !== 0) {
    console.error(`The model could not be exported by ${python}. pip install -e '.[export]', or set PYTHON.`);
    process.exit(1);
  }
}

if (!existsSync(model)) exportModel();
rmSync(dist, { recursive: true, force: true });
mkdirSync(dist);
await build({
  absWorkingDir: here,
  entryPoints: ["src/page.js", "src/worker.js", "src/style.css"],
  outdir: "dist",
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  legalComments: "linked",
});
copyFileSync(join(here, "src", "index.html"), join(dist, "index.html"));
copyFileSync(join(packageStatic, "icon.svg"), join(dist, "icon.svg"));
copyFileSync(
  join(here, "node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.wasm"),
  join(dist, "ort-wasm-simd-threaded.wasm"),
);
copyFileSync(model, join(dist, "lightglean.onnx"));
cpSync(join(packageStatic, "examples"), join(dist, "examples"), {
  recursive: true,
  filter: (path) => !path.endsWith(".jpg"), // a photograph, for which the model is not made
});
