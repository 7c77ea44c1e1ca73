"""qwen-asr: Qwen3-ASR behind LocalAI's gRPC contract. ARCHITECTURE.md walks a request through the rooms."""
