// Copying text: `copied` says whether it went to the clipboard.

/** Try the clipboard; without one (a page that is neither local nor https) select a field inside root and copy that. */
export async function copied(text, root) {
  return (await navigator.clipboard?.writeText(text).then(() => true, () => false)) || copiedSelected(text, root);
}

function copiedSelected(text, root) {
  const focused = root.getRootNode().activeElement;
  const field = Object.assign(document.createElement("textarea"), { className: "unseen", readOnly: true, value: text });
  root.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  focused?.focus();
  return done;
}
