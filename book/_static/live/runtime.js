// What runs the policies, onnxruntime-web: on the GPU if a server sent this page and the browser offers WebGPU, and
// otherwise in WebAssembly. The build for GPUs can also compute on the CPU, so a GPU that turns out to be slow costs no
// second download; only after a failure is the smaller build for CPUs loaded, too.
(() => {
  const { here, once, bytes, unzip } = window.TinyVLA;
  const device = { build: "", provider: "", says: "", slow: 60, answers: 0, late: 0 }; // slow: milliseconds

  const moveTo = (build, provider) => {
    const says = `Runs in your browser: ${provider === "webgpu" ? "WebGPU" : "WebAssembly"}.`;
    Object.assign(device, { build, provider, says });
    for (const line of document.querySelectorAll("[data-device]")) line.textContent = says;
  };
  const choose = () =>
    once("device", async () => {
      const adapter = location.protocol.startsWith("http") && (await navigator.gpu?.requestAdapter().catch(() => null));
      moveTo(...(adapter ? ["webgpu", "webgpu"] : ["wasm", "wasm"]));
    });

  /** Run the task where policies run now; if the build for GPUs fails, run it again in the build for CPUs. */
  const attempt = async (task) => {
    await choose();
    const { build, provider } = device;
    try {
      return await task(build, provider);
    } catch (error) {
      if (build === "wasm") throw error;
      moveTo("wasm", "wasm");
      return task("wasm", "wasm");
    }
  };
  /** Leave the GPU if five of its first ten answers are slow. */
  const clock = (provider, milliseconds) => {
    if (provider !== "webgpu" || device.answers++ >= 10) return;
    if (milliseconds > device.slow && ++device.late === 5) moveTo("webgpu", "wasm");
  };

  /** The bytes of a gzip file, which only a server can give; some servers unpack it on the way. */
  const served = async (name) => {
    const answer = await fetch(`${here}assets/${name}.gz`);
    if (!answer.ok) throw new Error(`${name}: ${answer.status}`);
    const blob = await answer.blob(), [first, second] = new Uint8Array(await blob.slice(0, 2).arrayBuffer());
    return first === 0x1f && second === 0x8b ? unzip(blob.stream()) : new Uint8Array(await blob.arrayBuffer());
  };
  const runtime = (build) =>
    once(`runtime ${build}`, async () => {
      const files = build === "webgpu" ? ["ort.webgpu.mjs", "ort.webgpu.wasm"].map(served) : ["ort.mjs", "ort.wasm"].map(bytes);
      const [code, wasm] = await Promise.all(files);
      const ort = await import(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
      Object.assign(ort.env.wasm, { wasmBinary: wasm.buffer, numThreads: 1 });
      ort.env.logLevel = "error";
      return ort;
    });

  let queue = Promise.resolve(); // the runtime does one thing at a time
  const inTurn = (task) => (queue = queue.then(task, task));

  const session = (name, build, provider) =>
    once(`session ${name} ${build} ${provider}`, async () => {
      const [ort, model] = await Promise.all([runtime(build), bytes(`${name}.onnx`)]);
      const options = { executionProviders: [provider], logSeverityLevel: 3 };
      const made = await inTurn(() => ort.InferenceSession.create(model, options));
      let broken = null; // a GPU reports an error as an event, and answers zeros
      if (provider === "webgpu") ort.env.webgpu.device.addEventListener("uncapturederror", ({ error }) => (broken = error));
      return async (inputs) => {
        const tensors = Object.entries(inputs).map(([key, value]) => [key, new ort.Tensor(...value)]);
        const outputs = await inTurn(async () => {
          const started = performance.now(), answer = await made.run(Object.fromEntries(tensors));
          if (broken) throw broken;
          clock(provider, performance.now() - started);
          return answer;
        });
        return Object.fromEntries(Object.entries(outputs).map(([key, tensor]) => [key, [...tensor.data]]));
      };
    });

  Object.assign(window.TinyVLA, {
    device,
    async load(name) {
      await attempt((...where) => session(name, ...where));
      return (inputs) => attempt(async (...where) => (await session(name, ...where))(inputs));
    },
  });
})();
