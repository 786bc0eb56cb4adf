"""
@misc{F2Fd,
  title = {F2FD: Fourier perturbations for denoising cryo-electron tomograms and comparison to
           established approaches},
  author = {F2Fd authors},
  journal = {github.com/Fickincool/F2Fd},
  year = {n.d.},
  url = {https://github.com/Fickincool/F2Fd}
}

@article{Tegunov2019,
  title = {Real-time cryo-electron microscopy data preprocessing with Warp},
  author = {Tegunov, Dimitry and Cramer, Patrick},
  journal = {Nature Methods},
  volume = {16},
  pages = {1146--1152},
  year = {2019},
  doi = {10.1038/s41592-019-0580-y}
}

@inproceedings{Lehtinen2018,
  title = {Noise2Noise: Learning Image Restoration without Clean Data},
  author = {Lehtinen, Jaakko and Munkberg, Jacob and Hasselgren, Jon and Laine, Samuli and
            Karras, Tero and Aittala, Miika and Aila, Timo},
  booktitle = {Proceedings of the 35th International Conference on Machine Learning},
  series = {Proceedings of Machine Learning Research},
  volume = {80},
  pages = {2965--2974},
  year = {2018}
}

@inproceedings{Quan2020,
  title = {Self2Self With Dropout: Learning Self-Supervised Denoising From Single Image},
  author = {Quan, Yuhui and Chen, Mingqin and Pang, Tongyao and Ji, Hui},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  pages = {1890--1898},
  year = {2020},
  doi = {10.1109/CVPR42600.2020.00196}
}

@inproceedings{Pang2021,
  title = {Recorrupted-to-Recorrupted: Unsupervised Deep Learning for Image Denoising},
  author = {Pang, Tongyao and Zheng, Huan and Quan, Yuhui and Ji, Hui},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  pages = {2043--2052},
  year = {2021},
  doi = {10.1109/CVPR46437.2021.00208}
}
"""
