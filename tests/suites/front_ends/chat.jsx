// A small chat of React, by the hook that the address names: ?hook=classic (LangGraph's API), v2 or newest (its protocol
// v2; newest: with an SDK whose metadata of a message names the checkpoint before it). Its other parameters: api, agent,
// transport (of v2: sse or websocket), thread.
import { createElement, useEffect, useState } from "react";
import { createRoot } from "react-dom/client";
import { useStream as useClassic } from "@langchain/langgraph-sdk/react";
import { useMessageMetadata, useStream } from "@langchain/react";

const address = new URLSearchParams(location.search);
const APPROVE = { decisions: [{ type: "approve" }] };

const textOf = (message) =>
  typeof message.content === "string"
    ? message.content
    : message.content.map((block) => block.text ?? "").join("");

/** What was shown of each message, in order: the test sees by it that text has come bit by bit. */
window.shown = {};

function Message({ message, metadata, onEdit, onBranch }) {
  const text = textOf(message);
  const role = message.type ?? message.getType();
  useEffect(() => {
    if (role === "ai" && text) (window.shown[message.id] ??= []).push(text);
  });
  const branches = metadata?.branchOptions ?? [];
  return (
    <li className={role} data-id={message.id}>
      <p>{text}</p>
      {(message.tool_calls ?? []).map((call) => (
        <code key={call.id} className="call">
          {call.name} {JSON.stringify(call.args)}
        </code>
      ))}
      {role === "human" && <button onClick={onEdit}>edit</button>}
      {branches.map((branch) => (
        <button key={branch} className="branch" onClick={() => onBranch(branch)}>
          branch
        </button>
      ))}
    </li>
  );
}

function Chat({ stream, thread, setThread, messages, send, resume }) {
  const [text, setText] = useState("");
  const [asked] = stream.interrupts ?? [];
  return (
    <main data-thread={thread ?? ""} data-busy={String(stream.isLoading)}>
      <ol>{messages}</ol>
      <output className="tools">
        {stream.toolCalls.map((call) => call.state ?? call.status ?? "").join(" ")}
      </output>
      {asked?.value && (
        <section>
          <code>{JSON.stringify(asked.value)}</code>
          <button onClick={() => resume(APPROVE)}>approve</button>
        </section>
      )}
      {stream.error ? <p className="error">{String(stream.error.message ?? stream.error)}</p> : null}
      <textarea value={text} onChange={(event) => setText(event.target.value)} />
      <button onClick={() => send(text)}>send</button>
      <button onClick={() => stream.stop()}>stop</button>
      <button onClick={() => setThread(null)}>new</button>
      {(JSON.parse(sessionStorage.getItem("threads")) ?? []).map((id) => (
        <button key={id} className="thread" onClick={() => setThread(id)}>
          {id}
        </button>
      ))}
    </main>
  );
}

function useThread() {
  const [thread, set] = useState(address.get("thread"));
  return [
    thread,
    (id) => {
      const known = JSON.parse(sessionStorage.getItem("threads")) ?? [];
      if (id && !known.includes(id)) sessionStorage.setItem("threads", JSON.stringify([...known, id]));
      address.delete("thread");
      if (id) address.set("thread", id);
      history.replaceState(null, "", `?${address}`);
      set(id);
    },
  ];
}

const human = (content) => ({ messages: [{ type: "human", content }] });

function ClassicChat() {
  const [thread, setThread] = useThread();
  const stream = useClassic({
    apiUrl: address.get("api"),
    assistantId: address.get("agent"),
    threadId: thread,
    onThreadId: setThread,
    reconnectOnMount: true,
    fetchStateHistory: true,
    onError: () => {},
  });
  const messages = stream.messages.map((message, at) => {
    const metadata = stream.getMessagesMetadata(message, at);
    const onEdit = () => {
      const edited = human(`${textOf(message)} 1*2`);
      stream.submit(edited, { checkpoint: metadata.firstSeenState.parent_checkpoint });
    };
    const props = { message, metadata, onEdit, onBranch: stream.setBranch };
    return <Message key={message.id ?? at} {...props} />;
  });
  const send = (text) =>
    stream.submit(human(text), {
      optimisticValues: (before) => ({ messages: [...(before.messages ?? []), ...human(text).messages] }),
    });
  const resume = (answer) => stream.submit(null, { command: { resume: answer } });
  return createElement(Chat, { stream, thread, setThread, messages, send, resume });
}

/** The checkpoint before a message, by the thread's history. */
async function checkpointBefore(stream, message) {
  const states = await stream.client.threads.getHistory(stream.threadId, { limit: 100 });
  const holding = states.filter((state) => state.values.messages?.some((one) => one.id === message.id));
  return holding.at(-1).parent_checkpoint.checkpoint_id;
}

function MessageOfV2({ stream, message }) {
  const metadata = useMessageMetadata(stream, message.id);
  const onEdit = async () => {
    const forkFrom =
      address.get("hook") === "newest" ? metadata.parentCheckpointId : await checkpointBefore(stream, message);
    await stream.submit(human(`${textOf(message)} 1*2`), { forkFrom });
  };
  return <Message message={message} onEdit={onEdit} />;
}

function ChatOfV2() {
  const [thread, setThread] = useThread();
  const stream = useStream({
    apiUrl: address.get("api"),
    assistantId: address.get("agent"),
    transport: address.get("transport") ?? "sse",
    threadId: thread,
    onThreadId: setThread,
  });
  const messages = stream.messages.map((message, at) => (
    <MessageOfV2 key={message.id ?? at} stream={stream} message={message} />
  ));
  const send = (text) => stream.submit(human(text));
  return createElement(Chat, { stream, thread, setThread, messages, send, resume: stream.respond });
}

createRoot(document.body.appendChild(document.createElement("div"))).render(
  createElement(address.get("hook") === "classic" ? ClassicChat : ChatOfV2),
);
