"""
@misc{F2Fd,
  title = {Fourier Perturbations for Denoising Cryo-Electron Tomograms and Comparison to
           Established Approaches},
  author = {Carvajal Maldonado, Jerónimo},
  journal = {GitHub},
  year = {2022},
  url = {https://github.com/Fickincool/F2Fd}
}

@inproceedings{Buchholz2019,
  title = {Cryo-CARE: Content-Aware Image Restoration for Cryo-Transmission Electron Microscopy
           Data},
  author = {Buchholz, Tim-Oliver and Jordan, Mareike and Pigino, Gaia and Jug, Florian},
  booktitle = {IEEE 16th International Symposium on Biomedical Imaging (ISBI)},
  pages = {502--506},
  year = {2019},
  doi = {https://doi.org/10.1109/ISBI.2019.8759519}
}

@inproceedings{Chen2021,
  title = {Equivariant Imaging: Learning Beyond the Range Space},
  author = {Chen, Dongdong and Tachella, Julián and Davies, Mike E.},
  booktitle = {IEEE/CVF International Conference on Computer Vision (ICCV)},
  pages = {4379--4388},
  year = {2021},
  doi = {https://doi.org/10.1109/ICCV48922.2021.00434}
}

@article{Harauz1986,
  title = {Exact filters for general geometry three dimensional reconstruction},
  author = {Harauz, George and van Heel, Marin},
  journal = {Optik},
  volume = {73},
  pages = {146--156},
  year = {1986}
}

@inproceedings{Krull2019,
  title = {Noise2Void - Learning Denoising From Single Noisy Images},
  author = {Krull, Alexander and Buchholz, Tim-Oliver and Jug, Florian},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  pages = {2124--2132},
  year = {2019},
  doi = {https://doi.org/10.1109/CVPR.2019.00223}
}

@inproceedings{Lehtinen2018,
  title = {Noise2Noise: Learning Image Restoration without Clean Data},
  author = {Lehtinen, Jaakko and Munkberg, Jacob and Hasselgren, Jon and Laine, Samuli and
            Karras, Tero and Aittala, Miika and Aila, Timo},
  booktitle = {Proceedings of the 35th International Conference on Machine Learning},
  series = {Proceedings of Machine Learning Research},
  volume = {80},
  pages = {2965--2974},
  year = {2018},
  url = {https://proceedings.mlr.press/v80/lehtinen18a.html}
}

@article{Liu2022,
  title = {Isotropic reconstruction for electron tomography with deep learning},
  author = {Liu, Yun-Tao and Zhang, Heng and Wang, Hui and Tao, Chang-Lu and Bi, Guo-Qiang and
            Zhou, Z. Hong},
  journal = {Nature Communications},
  volume = {13},
  pages = {6482},
  year = {2022},
  doi = {https://doi.org/10.1038/s41467-022-33957-8}
}

@inproceedings{Pang2021,
  title = {Recorrupted-to-Recorrupted: Unsupervised Deep Learning for Image Denoising},
  author = {Pang, Tongyao and Zheng, Huan and Quan, Yuhui and Ji, Hui},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  pages = {2043--2052},
  year = {2021},
  doi = {https://doi.org/10.1109/CVPR46437.2021.00208}
}

@inproceedings{Quan2020,
  title = {Self2Self With Dropout: Learning Self-Supervised Denoising From Single Image},
  author = {Quan, Yuhui and Chen, Mingqin and Pang, Tongyao and Ji, Hui},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  pages = {1890--1898},
  year = {2020},
  doi = {https://doi.org/10.1109/CVPR42600.2020.00196}
}

@article{Ramani2008,
  title = {Monte-Carlo SURE: A Black-Box Optimization of Regularization Parameters for General
           Denoising Algorithms},
  author = {Ramani, Sathish and Blu, Thierry and Unser, Michael},
  journal = {IEEE Transactions on Image Processing},
  volume = {17},
  pages = {1540--1554},
  year = {2008},
  doi = {https://doi.org/10.1109/TIP.2008.2001404}
}

@article{Stein1981,
  title = {Estimation of the Mean of a Multivariate Normal Distribution},
  author = {Stein, Charles M.},
  journal = {The Annals of Statistics},
  volume = {9},
  pages = {1135--1151},
  year = {1981},
  doi = {https://doi.org/10.1214/aos/1176345632}
}

@article{Tegunov2019,
  title = {Real-time cryo-electron microscopy data preprocessing with Warp},
  author = {Tegunov, Dimitry and Cramer, Patrick},
  journal = {Nature Methods},
  volume = {16},
  pages = {1146--1152},
  year = {2019},
  doi = {https://doi.org/10.1038/s41592-019-0580-y}
}

@article{Wang2004,
  title = {Image quality assessment: from error visibility to structural similarity},
  author = {Wang, Zhou and Bovik, Alan C. and Sheikh, Hamid R. and Simoncelli, Eero P.},
  journal = {IEEE Transactions on Image Processing},
  volume = {13},
  pages = {600--612},
  year = {2004},
  doi = {https://doi.org/10.1109/TIP.2003.819861}
}

@inproceedings{Zhang2022,
  title = {IDR: Self-Supervised Image Denoising via Iterative Data Refinement},
  author = {Zhang, Yi and Li, Dasong and Law, Ka Lung and Wang, Xiaogang and Qin, Hongwei and
            Li, Hongsheng},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  year = {2022},
  url = {https://arxiv.org/abs/2111.14358}
}
"""
