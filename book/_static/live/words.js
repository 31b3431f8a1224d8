// WordPiece with all 30,522 entries of the policies' vocabulary, as in tinyvla.model.tokenizer, and how it is shown.
(() => {
  const { text, element } = window.TinyVLA;
  const SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
  const isPunctuation = (c) => /[!-/:-@[-`{-~]|\p{P}/u.test(c);

  const load = async () => {
    const entries = (await text("vocab.txt")).replace(/\n$/, "").split("\n");
    const ids = new Map(entries.map((entry, id) => [entry, id]));

    /** Words and punctuation marks of a piece of text without special tokens, in lower case without accents. */
    const split = (piece) =>
      [...piece].filter((c) => /[\t\n\r]/.test(c) || !/[\0\ufffd]|\p{C}/u.test(c)).join("")
        .replace(/[\u4e00-\u9fff\u3400-\u4dbf\u{20000}-\u{2a6df}\u{2a700}-\u{2ceaf}\uf900-\ufaff\u{2f800}-\u{2fa1f}]/gu, " $& ")
        .normalize("NFD").replace(/\p{Mn}/gu, "").toLowerCase()
        .split(/\s+/u).flatMap((word) => {
          const parts = [""];
          for (const c of word) isPunctuation(c) ? parts.push(c, "") : (parts[parts.length - 1] += c);
          return parts.filter(Boolean);
        });

    /** The pieces of a word, the longest first. */
    const pieces = (word) => {
      const letters = [...word], found = [];
      if (letters.length > 100) return ["[UNK]"];
      for (let start = 0; start < letters.length; ) {
        let end = letters.length, piece;
        for (; end > start; end--) {
          piece = (start ? "##" : "") + letters.slice(start, end).join("");
          if (ids.has(piece)) break;
        }
        if (end === start) return ["[UNK]"];
        found.push(piece);
        start = end;
      }
      return found;
    };

    /** A sentence as [{word, pieces, ids}]; special tokens that are typed stay whole. */
    const words = (sentence) =>
      sentence.split(/(\[(?:PAD|UNK|CLS|SEP|MASK)\])/).flatMap((part) => (SPECIAL.includes(part) ? [part] : split(part)))
        .map((word) => {
          const parts = SPECIAL.includes(word) ? [word] : pieces(word);
          return { word, pieces: parts, ids: parts.map((piece) => ids.get(piece)) };
        });
    return { words, encode: (sentence) => [101, ...words(sentence).flatMap((word) => word.ids), 102] };
  };

  /** Chips with each piece and its id; `isKnown` says whether training showed an id. */
  const chips = (words, isKnown = () => true) =>
    element("ol", { class: "tv-tokens", "aria-label": "tokens and their ids" },
      ...[{ pieces: ["[CLS]"], ids: [101] }, ...words, { pieces: ["[SEP]"], ids: [102] }].flatMap((word) =>
        word.pieces.map((piece, i) =>
          element("li", { class: isKnown(word.ids[i]) ? "" : "tv-new", title: isKnown(word.ids[i]) ? null : "never seen in training" },
            element("b", {}, piece), " ", element("span", {}, String(word.ids[i]))))));

  let loading;
  window.TinyVLA.tokenizer = () => (loading ??= load());
  window.TinyVLA.chips = chips;
})();
