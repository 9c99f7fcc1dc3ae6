"""Nanoparticle uptake of brain metastases from MP2RAGE T1 maps before and after infusion.

World coordinates inside the package are LPS millimetres (DICOM, ITK). ``images`` is the only module
that opens NIfTI files and turns their RAS coordinates into LPS. A rigid transform is a 4 x 4 matrix
that maps points of the fixed (reference) space to points of the moving space.
"""

__version__ = "0.1.0"
