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
# # Train, compare, read a card
#
# Two recipes of one task, side by side, and what the platform writes down about a model. `fairlead` is what the command
# line calls, too: a run that starts here is in `fairlead runs`, and the other way round.

# %%
import fairlead

fairlead.home()  # runs and models are here: the nearest `.fairlead`, from this folder upwards

# %%
fairlead.tasks()

# %% [markdown]
# ## Train
#
# Steps that are unchanged come from the cache: the second recipe trains on the data set that the first one has made.
# A model that the gate refuses is no error; the run says `refused`, and why.

# %%
scorecard = fairlead.run("credit")
scorecard

# %%
logistic = fairlead.run("credit", recipe="logistic", settings={"seed": 7}, promote=False)
logistic

# %% [markdown]
# ## Compare
#
# The metrics are each version's own, on the test rows it was evaluated on. Where those differ, the last line says so.

# %%
fairlead.models("credit")

# %%
comparison = fairlead.compare(scorecard.model, logistic.model)
comparison

# %%
comparison.frame().set_index("metric").round(3)

# %% [markdown]
# ## Read
#
# Each group of people has numbers of its own. The card holds them, with what the model is for and what it is not for.

# %%
model = fairlead.model(scorecard.model)
model.gate

# %%
model.plots

# %%
model.card
