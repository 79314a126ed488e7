"""The stand-in ComfyUI is held to recordings of the real one (tests/golden/comfyui/).

With COMFYUI_URL=http://127.0.0.1:8188 the same tests run against that real ComfyUI 0.3.64. Those that restart, kill
or look at the disk of the server, or depend on the order of a set inside it, always take the stand-in (`standin`).
"""
