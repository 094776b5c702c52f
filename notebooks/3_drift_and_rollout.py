# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Drift seen, a run started, a rollout followed
#
# Prices double, and so do the loans that people ask for. The monitor sees it in the log of predictions, a model is
# trained on the new applications, and it takes over by evidence. `fairlead watch` does all of this by itself; here each
# step is a cell.

# %%
import contextlib
import threading

import pyarrow as pa

import fairlead
from pipelines.tasks.credit.config import SimulatorConfig
from pipelines.tasks.credit.simulator import simulate

if not any(model.name == "credit" for model in fairlead.models()):
    fairlead.run("credit")
service = fairlead.serve("credit", rollouts=True).start()
service

# %% [markdown]
# ## The usual applications
#
# The world is simulated, and so are the clients: a thread that asks about some rows at a time.

# %%
inputs = [item.name for item in fairlead.model(service.model).bundle.document.signature.inputs]
usual = pa.concat_tables(simulate(SimulatorConfig(), seed=21)).to_pandas()


@contextlib.contextmanager
def clients(applications):
    rows, over = applications[inputs].to_dict("records"), threading.Event()

    def ask():
        at = 0
        while not over.wait(0.02):
            service.predict(rows[at : at + 10])
            at = (at + 10) % len(rows)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


service.predict(usual[inputs].head(1500))
with clients(usual):
    before = fairlead.monitor("credit", until=lambda report: report.rows > 1500)
before

# %% [markdown]
# ## Prices double
#
# Bars are the population stability index (PSI) of each input: how far what is asked now is from what was normal.

# %%
doubled = usual.assign(amount=2 * usual["amount"], payment_share=2 * usual["payment_share"])
with clients(doubled):
    drift = fairlead.monitor("credit", until=lambda report: report.drifted)
drift

# %%
drift.drifted

# %% [markdown]
# ## A new run, on the new world
#
# The rules of its rollout are settings of the run, and travel in its bundle. Steps take a second here, and minutes or
# hours in production. Its answers may differ from the champion's, because the world does.

# %%
source = fairlead.home() / "doubled.parquet"
doubled.to_parquet(source)
rules = {"weights": [25, 50, 100], "step_seconds": 0.5, "warm_seconds": 0.5, "step_samples": 20}
settings = {f"rollout.{name}": value for name, value in rules.items()} | {"rollout.answers.judged": False}
new = fairlead.run("credit", source=source, settings=settings, promote=False)
new

# %% [markdown]
# ## Its rollout
#
# It is judged by requests, so the clients go on.

# %%
with clients(doubled):
    rollout = fairlead.roll_out(new.model, reason=f"drift of {', '.join(drift.drifted)}")
    rollout = rollout.follow(timeout=120)

# %%
rollout.transitions

# %% [markdown]
# ## Who did what, and why

# %%
fairlead.audit("credit")

# %%
service.stop()
fairlead.model("credit")
