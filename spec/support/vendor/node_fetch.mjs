// Submits a prompt and waits for its image.
// Usage: node node_fetch.mjs "a fox --ar 4:5"
const key = process.env.MIDJOURNEY_API_KEY;
const base = process.env.MIDJOURNEY_API_BASE_URL ?? "https://api.midjourney-api.com";
const hookUrl = process.env.MIDJOURNEY_WEBHOOK_URL;
const pollMs = Number(process.env.POLL_MS ?? 5000);

async function call(endpoint, body) {
  const response = await fetch(`${base}/midjourney/v1/${endpoint}`, {
    method: "POST",
    headers: { "Content-Type": "application/json", "API-KEY": key },
    body: JSON.stringify(body),
  });
  const answer = await response.json();
  if (!response.ok || answer.status !== 0) {
    throw new Error(`${endpoint}: ${answer.message}`);
  }
  return answer.data;
}

const prompt = process.argv[2] ?? "a fox in the snow --ar 4:5";
const { taskId } = await call("submit-jobs", { prompt, mode: "fast", hookUrl, timeout: 600 });
console.error(`submitted ${taskId}`);

for (;;) {
  const [task] = await call("job-status", { taskIds: [taskId] });
  if (task?.status === 1) {
    console.log(task.image);
    break;
  }
  if (task?.status === 2) {
    console.error(`failed: ${task.failReason}`);
    process.exitCode = 1;
    break;
  }
  await new Promise((resolve) => setTimeout(resolve, pollMs));
}
