"""What brings Ollama and Open WebUI up on this machine, keeps them up, and takes them down?"""
