// The network, beside the page's own thread, which stays free for the visitor.

import * as ort from "onnxruntime-web/wasm";
import { toBytes, toFloats } from "./pixels.js";

ort.env.wasm.wasmPaths = { wasm: new URL("ort-wasm-simd-threaded.wasm", self.location.href).href };
// Threads need the headers of cross-origin isolation, which a plain web server does not send.
ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1;

let session;

self.onmessage = async ({ data: { order, rgba, width, height } }) => {
  try {
    session ??= await ort.InferenceSession.create("lightglean.onnx", { executionProviders: ["wasm"] });
    const { output } = await session.run({ lq: new ort.Tensor("float32", toFloats(rgba), [1, 3, height, width]) });
    const [, , outHeight, outWidth] = output.dims;
    const bytes = toBytes(output.data);
    self.postMessage({ order, rgba: bytes, width: outWidth, height: outHeight }, [bytes.buffer]);
  } catch (error) {
    self.postMessage({ order, error: String(error?.message ?? error).split("\n")[0] });
  }
};
