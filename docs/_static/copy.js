// A copied block of Python ends with a newline if it has several lines, so that one Enter runs it: without the newline,
// Python waits for an empty line. The copy button leaves the newline out.
let python = null;

document.addEventListener(
    "click",
    ({ target }) => {
        python = target.closest("button.copybtn")?.closest(".highlight-pycon, .highlight-python, .doctest");
    },
    true,
);

document.addEventListener("copy", (event) => {
    // The button copies from a textarea of its own.
    const text = event.target.value;
    if (python && text?.includes("\n")) {
        event.clipboardData.setData("text/plain", text + "\n");
        event.preventDefault();
    }
});
