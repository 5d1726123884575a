"""The shipped checks: pytest tests that read a deployed site and answer the controls of RFC 5383, each with the class of its answer.

A check carries two marks. `control(...)` names the controls it answers (`supports(...)`: it can break them, but proves too little to
answer them); `answer(...)` gives its class: live, scaled or configuration. How it may end: `lemonstand.outcomes`. Nobody imports this
package but what breaks labs on purpose, to know which checks have to notice.
"""
