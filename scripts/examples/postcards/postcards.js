// A card that waits asks for its news; the answer comes when its task has an end, or after 20 seconds.
async function follow(card) {
  while (card.isConnected && "waits" in card.dataset) {
    try {
      const answer = await fetch(`/cards/${card.dataset.ref}`);
      if (!answer.ok) throw new Error(answer.status);
      const shell = document.createElement("div");
      shell.innerHTML = await answer.text(); // escaped by the server
      const next = shell.firstElementChild;
      card.replaceWith(next);
      card = next;
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 3000));
    }
  }
}
document.querySelectorAll("[data-waits]").forEach(follow);
