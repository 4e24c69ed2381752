// The simulator's API. Every failure is an Error whose message is fit to be shown.

const WAIT_SECONDS = 20;
const ANSWER_SECONDS = WAIT_SECONDS + 10;
const RETRY = { first: 250, longest: 4000 }; // milliseconds

export const people = () => call("/api/people");
export const addPerson = (number, name) => call("/api/people", { method: "POST", body: { number, name } });
export const say = (number, utterance) => call(messagesOf(number), { method: "POST", body: utterance });
export const faults = () => call("/api/faults");
export const setFaults = (faults) => call("/api/faults", { method: "PUT", body: faults });

/** Repeat `attempt` until it succeeds or `signal` aborts; `attempt` is told whether all is well so far. */
export async function persist(attempt, { onLost, signal }) {
  for (let delay = RETRY.first; ; delay = Math.min(2 * delay, RETRY.longest)) {
    try {
      return await attempt(delay === RETRY.first);
    } catch (error) {
      signal?.throwIfAborted();
      onLost();
    }
    await new Promise((resolve) => setTimeout(resolve, delay));
    signal?.throwIfAborted();
  }
}

/**
 * Tell what happens on the phone with `number`, from the beginning and until `signal` aborts.
 *
 * `onNews` gets messages that are new or have changed; `onLost` is told of every failure to reach the simulator. The
 * simulator keeps everything in memory: when it was started again, `onForgotten` is told, and then everything anew.
 */
export async function follow(number, { signal, onNews, onLost, onForgotten }) {
  let seen = null;
  while (!signal.aborted) {
    const news = await persist((connected) => {
      const wait = connected && seen !== null ? WAIT_SECONDS : 0;
      return call(`${messagesOf(number)}?since=${seen?.changes ?? 0}&wait=${wait}`, { signal });
    }, { signal, onLost });
    if (seen !== null && seen.world !== news.world) {
      seen = null;
      await persist(onForgotten, { signal, onLost });
    } else {
      onNews(news.messages);
      seen = news;
    }
  }
}

const messagesOf = (number) => `/api/people/${encodeURIComponent(number)}/messages`;

async function call(path, { method = "GET", body, signal } = {}) {
  const limit = AbortSignal.timeout(1000 * ANSWER_SECONDS);
  const request = { method, signal: signal ? AbortSignal.any([signal, limit]) : limit };
  if (body !== undefined) {
    request.headers = { "Content-Type": "application/json" };
    request.body = JSON.stringify(body);
  }
  let response, answer;
  try {
    response = await fetch(path, request);
    answer = await response.json();
  } catch {
    throw new Error(response ? `The simulator answered HTTP ${response.status}.` : "The simulator does not answer.");
  }
  if (!response.ok) {
    throw new Error(answer.error);
  }
  return answer;
}
