"""A workflow held against ComfyUI's node catalogue, before any GPU is used. No Django, no database.

The rules are those of ComfyUI's own POST /prompt (protocol/comfyui.md, Rejections), with one above them: what ComfyUI
would accept is never refused, so whatever the catalogue does not tell for sure passes.
"""
