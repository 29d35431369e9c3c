"""`python -m stokehold.agent`, for images and tests that want the agent without the rest."""

from stokehold.agent.run import agent_command

if __name__ == "__main__":
    agent_command(prog_name="stokehold agent")
