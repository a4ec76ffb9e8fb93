// Shows what the kernel has drawn: its values were escaped there.
function render({ model, el }) {
  const draw = () => {
    el.innerHTML = model.get("drawn");
  };
  draw();
  model.on("change:drawn", draw);
  return () => model.off("change:drawn", draw);
}

export default { render };
