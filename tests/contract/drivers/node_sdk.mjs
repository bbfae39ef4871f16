// Every call of the Batch API with the official Node SDK; prints what came as JSON, as python_sdk.py does.
// Arguments: surface (openai, azure, azure-v1), address, key, model, api-version.
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import OpenAI, { AzureOpenAI, toFile } from "openai";

const [surface, url, key, model, apiVersion] = process.argv.slice(2);
const lineUrl = surface === "azure" ? "/chat/completions" : "/v1/chat/completions";
const clientOf = (apiKey) =>
  surface === "azure"
    ? new AzureOpenAI({ endpoint: url, apiKey, apiVersion, maxRetries: 0 })
    : new OpenAI({ baseURL: url + (surface === "azure-v1" ? "/openai/v1/" : "/v1"), apiKey, maxRetries: 0 });
const client = clientOf(key);

const line = (customId) =>
  JSON.stringify({
    custom_id: customId,
    method: "POST",
    url: lineUrl,
    body: { model, messages: [{ role: "user", content: "hello" }] },
  }) + "\n";

async function refused(call) {
  try {
    await call();
  } catch (error) {
    return [error.constructor.name, error.status];
  }
  return null;
}

async function idsOf(list) {
  const ids = [];
  for await (const one of await list) ids.push(one.id);
  return ids;
}

const content = line("a b/ü") + line("2");
const folder = fs.mkdtempSync(path.join(os.tmpdir(), "contract-"));
const file = path.join(folder, "in.jsonl");
fs.writeFileSync(file, content);
const seen = {};
// From a stream: the file first, then the purpose, chunked, without a Content-Length.
const uploaded = await client.files.create({ file: fs.createReadStream(file), purpose: "batch" });
seen.uploaded = [uploaded.object, uploaded.bytes === Buffer.byteLength(content), uploaded.filename, uploaded.purpose];
seen.processed = (await client.files.waitForProcessing(uploaded.id, { pollInterval: 50 })).status;
seen.retrieved = (await client.files.retrieve(uploaded.id)).id === uploaded.id;
seen.listed = (await idsOf(client.files.list())).includes(uploaded.id);
seen.same_content = (await (await client.files.content(uploaded.id)).text()) === content;
let streamed = "";
const decoder = new TextDecoder();
for await (const chunk of (await client.files.content(uploaded.id)).body) {
  streamed += decoder.decode(chunk, { stream: true });
}
seen.streamed_content = streamed === content;
if (surface === "openai") {
  const later = await client.files.create({ file: await toFile(Buffer.from(content), "later.jsonl"), purpose: "batch" });
  const oldest = await idsOf(client.files.list({ order: "asc" }));
  seen.ascending = oldest.indexOf(uploaded.id) < oldest.indexOf(later.id);
}
seen.wrong_key = await refused(() => clientOf("wrong-key").files.retrieve(uploaded.id));
seen.unknown_file = await refused(() => client.files.retrieve("file-none"));

const made = await client.batches.create({
  input_file_id: uploaded.id,
  endpoint: "/v1/chat/completions",
  completion_window: "24h",
  metadata: { who: "driver" },
});
seen.created = [made.object, made.status, made.completion_window, made.metadata];
let batch = made;
for (let i = 0; i < 600 && !["completed", "failed", "expired", "cancelled"].includes(batch.status); i++) {
  await new Promise((resolve) => setTimeout(resolve, 50));
  batch = await client.batches.retrieve(made.id);
}
const counts = batch.request_counts;
seen.ended = [batch.status, counts.total, counts.completed, counts.failed];
const text = await (await client.files.content(batch.output_file_id)).text();
seen.answered = text.trimEnd().split("\n").map((one) => JSON.parse(one).custom_id).sort();
const newer = await client.batches.create({
  input_file_id: uploaded.id,
  endpoint: "/v1/chat/completions",
  completion_window: "24h",
});
const listed = await idsOf(client.batches.list({ limit: 1 }));
seen.pages = [listed.indexOf(newer.id) < listed.indexOf(made.id), new Set(listed).size === listed.length];
seen.bad_request = await refused(() =>
  client.batches.create({
    input_file_id: uploaded.id,
    endpoint: "/v1/chat/completions",
    completion_window: "24h",
    metadata: Object.fromEntries([...Array(17).keys()].map((i) => [`k${i}`, "v"])),
  }),
);
seen.unknown_batch = await refused(() => client.batches.retrieve("batch_none"));
seen.cancel_ended = await refused(() => client.batches.cancel(made.id));
seen.raw = (await client.batches.retrieve(made.id).asResponse()).headers.get("content-type");

const bytes = Buffer.from(content);
const upload = await client.uploads.create({
  filename: "parts.jsonl",
  purpose: "batch",
  bytes: bytes.length,
  mime_type: "application/jsonl",
});
const half = Math.floor(bytes.length / 2);
const parts = [];
for (const piece of [bytes.subarray(0, half), bytes.subarray(half)]) {
  parts.push((await client.uploads.parts.create(upload.id, { data: await toFile(piece, "part") })).id);
}
const done = await client.uploads.complete(upload.id, { part_ids: parts });
const back = await (await client.files.content(done.file.id)).text();
seen.upload = [upload.status, done.status, back === content];
const other = await client.uploads.create({
  filename: "no.jsonl",
  purpose: "batch",
  bytes: 1,
  mime_type: "application/jsonl",
});
seen.upload_cancelled = (await client.uploads.cancel(other.id)).status;

seen.deleted = (await client.files.delete(uploaded.id)).deleted;
seen.gone = await refused(() => client.files.retrieve(uploaded.id));
fs.rmSync(folder, { recursive: true });
const { VERSION } = await import("openai/version");
console.log(JSON.stringify({ version: VERSION, lacks: [], seen }));
