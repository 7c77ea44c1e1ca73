# vLLM with what it needs to decode sound; for deploy/compose.yaml, and to push for deploy/kubernetes.yaml.
FROM vllm/vllm-openai:v0.32.0
RUN pip install --no-cache-dir "vllm[audio]==0.32.0"
