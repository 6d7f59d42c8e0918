"""Fitting of a trained potential's uncertainties: the curvature of its loss, and their size.

Energies are E = w^T F, with the sum F of the last features f of N atoms, and forces -dF/dx w. With
f measured from its mean over the training atoms of the element,

    C = sum_i f_i f_i^T / (N s_E)^2  +  sum_x (dF/dx) (dF/dx)^T / s_F^2

over the atoms and over the force components of all structures, with the root mean square errors
s_E of energies per atom and s_F of forces. The second sum is Gauss and Newton's curvature of the
squared errors of forces over w. That of energies would have F F^T: but then how an energy is shared
among the atoms of a structure is taken for unknown, and an atom's uncertainty says nothing of its
environment (benchmarks/README.md has both). The second sum is taken over random directions v of all
atoms, since v^T (dF/dr) needs no derivative of each feature: it is a difference of features. To C
comes the ridge under which the errors of the validation set are likeliest, if the variances are
F^T C^-1 F of energies and (dF/dx)^T C^-1 (dF/dx) of forces but for their sizes. The sizes alpha are
found last, in the same way, for the variances as the model states them: with atoms that count the
more, the farther they are from the training data (`pet_mlip.network.uncertainty` has the formula
and the source). Outliers among the errors count less for the sizes.
"""
