// The official Node SDK at the gateway: only baseURL is not the provider's. Arguments: GATEWAY KEY FILE.
import fs from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import OpenAI from "openai";

const [gateway, key, path] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${gateway}/v1`, apiKey: key });
const file = await client.files.create({ file: fs.createReadStream(path), purpose: "batch" });
let batch = await client.batches.create({
  input_file_id: file.id, endpoint: "/v1/chat/completions", completion_window: "24h",
});
while (!["completed", "failed", "expired", "cancelled"].includes(batch.status)) {
  await sleep(1000);
  batch = await client.batches.retrieve(batch.id);
}
console.log(batch.status);
for (const error of batch.errors?.data ?? []) console.error(`line ${error.line}: ${error.message}`);
for (const result of [batch.output_file_id, batch.error_file_id].filter(Boolean)) {
  console.log(await (await client.files.content(result)).text());
}
