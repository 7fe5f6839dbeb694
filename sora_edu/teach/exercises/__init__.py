"""The exercises, one file per chapter; `sora_edu.teach.exercise` says how to write one."""
