// What NiceGUI has no element for: a streaming upload with its progress, and Ctrl+Enter in text areas.
function sartorUpload(file, progressId) {
  const shown = document.getElementById(progressId);
  const request = new XMLHttpRequest();
  request.open("PUT", "/upload?name=" + encodeURIComponent(file.name));
  request.upload.onprogress = (e) => { if (shown && e.lengthComputable) shown.textContent = Math.round(100 * e.loaded / e.total) + " %"; };
  request.onload = () => {
    if (shown) shown.textContent = "";
    let answer = {};
    try { answer = JSON.parse(request.responseText); } catch (error) { answer = { error: request.responseText }; }
    emitEvent("sartor-uploaded", answer);
  };
  request.onerror = () => emitEvent("sartor-uploaded", { error: "network" });
  request.send(file);
}
document.addEventListener("change", (e) => {
  if (!e.target.matches("input[data-upload]")) return;
  for (const file of e.target.files) sartorUpload(file, "upload-progress");
  e.target.value = "";
});
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (e) => {
    const zone = e.target.closest && e.target.closest(".drop");
    if (zone) zone.classList.toggle("over", kind === "dragenter" || kind === "dragover");
  });
}
